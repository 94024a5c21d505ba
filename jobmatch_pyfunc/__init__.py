"""What ships inside the model: text analysis, look-up tables and the pyfunc."""
