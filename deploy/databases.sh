# Sourced or run by the image of PostgreSQL at its first start: a database and a role for MLflow and
# one for the gateway's users, neither of which can open the other's.
psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv mlflow MLFLOW_DB_PASSWORD
\getenv gateway GATEWAY_DB_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE gateway LOGIN PASSWORD :'gateway';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE gateway OWNER gateway;
REVOKE CONNECT, TEMPORARY ON DATABASE mlflow, gateway FROM PUBLIC;
SQL
