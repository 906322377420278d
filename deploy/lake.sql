-- PostgreSQL runs this once, on an empty volume: the lake's catalogue beside Dagster's own database.
CREATE DATABASE lake;
