-- One row per version and reason: rows that were not taken.
CREATE OR REPLACE VIEW rejected_by_reason AS
SELECT dataset_version, reason_code, count(*) AS n_rows, min(line) AS first_line, any_value(file) AS file
FROM rejected_rows
GROUP BY dataset_version, reason_code;
