-- MLflow's tables, its users among them; apart from Optuna's, for both keep their version under the same name.
CREATE DATABASE mlflow;
