"""Everything on one machine by one command: MLflow's server, the served model and the gateway."""
