-- PostgreSQL runs this once, on an empty volume: each team's lake catalogue beside Dagster's own database.
CREATE DATABASE math;
CREATE DATABASE code;
