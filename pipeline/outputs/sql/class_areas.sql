-- One row an image and class present in it, of current rows only.
CREATE OR REPLACE VIEW class_areas AS
SELECT * EXCLUDE (area), area.class_id, area.class_name, area.pixels, area.fraction
FROM (SELECT key, etag, last_modified, model_id, params_id, recipe, run_id, unnest(areas) AS area FROM current);
