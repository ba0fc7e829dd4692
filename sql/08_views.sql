-- Columns of the views are part of the interface: adding one is a minor
-- change, renaming one a major.
SELECT c.relname AS view, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind = 'v'
	ORDER BY c.relname COLLATE "C", a.attnum;

-- and so are the functions
\pset footer off
\pset format unaligned
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS function, pg_get_function_result(p.oid) AS returns
	FROM pg_proc p WHERE p.pronamespace = 'oauth_vault'::regnamespace
	ORDER BY p.proname COLLATE "C";
