-- Parameters: NULL for a required one is 22004, an empty one 22023; both are
-- named.  Nothing is STRICT, so nothing answers a NULL with a NULL.
CREATE FUNCTION pg_temp.try(sql text, OUT state text, OUT message text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	state := '00000';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
END
$$;

-- Everything NULL
SELECT p.proname, t.*
	FROM pg_proc p, LATERAL pg_temp.try(format('SELECT oauth_vault.%I(%s)', p.proname,
		(SELECT string_agg('NULL::' || a::regtype, ', ' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY u (a, n)))) t
	WHERE p.pronamespace = 'oauth_vault'::regnamespace AND p.proname LIKE 'oauth\_%' AND p.pronargs > 0
	ORDER BY p.proname COLLATE "C";

-- One by one
SELECT c.call, t.* FROM (VALUES
	(1, $$oauth_begin('')$$),
	(2, $$oauth_begin('x', ARRAY['a', NULL])$$),
	(3, $$oauth_begin('x', params => '[]')$$),
	(4, $$oauth_begin('x', assertion => '')$$),
	(5, $$oauth_complete('', 'code')$$),
	(6, $$oauth_complete('state', NULL)$$),
	(7, $$oauth_callback('')$$),
	(8, $$oauth_fresh_token('')$$),
	(9, $$oauth_fresh_token(NULL)$$),
	(10, $$oauth_fresh_token('x', scopes => ARRAY[''])$$),
	(11, $$oauth_fresh_token('x', min_ttl => '-1 s')$$),
	(12, $$oauth_credential('')$$),
	(13, $$oauth_fresh_tokens(ARRAY['x', NULL])$$),
	(14, $$oauth_report_rejected('x', '')$$),
	(15, $$oauth_report_rejected('x', 'y', http_status => NULL)$$),
	(16, $$oauth_revoke('')$$),
	(17, $$oauth_set_my_limit('', NULL)$$),
	(18, $$oauth_set_my_limit('x', ARRAY['two words'])$$),
	(19, $$oauth_identify('')$$),
	(20, $$oauth_identify('x', NULL)$$),
	(21, $$oauth_create_connector('', 'google', 'id')$$),
	(22, $$oauth_create_connector('Upper', 'google', 'id')$$),
	(23, $$oauth_create_connector('-x', 'google', 'id')$$),
	(24, $$oauth_create_connector(repeat('x', 64), 'google', 'id')$$),
	(25, $$oauth_create_connector('x', '', 'id')$$),
	(26, $$oauth_create_connector('x', 'google', '')$$),
	(27, $$oauth_create_connector('x', 'google', 'id', '')$$),
	(28, $$oauth_create_connector('x', 'google', 'id', 's')$$),
	(29, $$oauth_create_connector('x', 'google', 'id', 's', '')$$),
	(30, $$oauth_create_connector('x', 'google', 'id', 's', '/callback')$$),
	(31, $$oauth_create_connector('x', 'google', 'id', 's', 'http://app.example/cb')$$),
	(32, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb#part')$$),
	(33, $$oauth_create_connector('x', 'google', 'id', 's', 'https://u:p@app.example/cb')$$),
	(34, $$oauth_create_connector('x', 'google', 'id', 's', redirect_uris => ARRAY['https://app.example/cb', 'app.example/cb'])$$),
	(35, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', ARRAY['two words'])$$),
	(36, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', ARRAY['a', 'b'], ARRAY['a'])$$),
	(37, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', max_scopes => ARRAY['"'])$$),
	(38, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', params => '"text"')$$),
	(39, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', params => '{"a": 1}')$$),
	(40, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', issuer => '')$$),
	(41, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', refresh_policy => 'never')$$),
	(42, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', refresh_policy => NULL)$$),
	(43, $$oauth_create_connector('x', 'google', 'id', repeat('s', 20000), 'https://app.example/cb')$$),
	(44, $$oauth_alter_connector('')$$),
	(45, $$oauth_alter_connector('x', status => 'dropped')$$),
	(46, $$oauth_alter_connector('x', client_id => '')$$),
	(47, $$oauth_drop_connector('')$$),
	(48, $$oauth_set_client_secret('x', '')$$),
	(49, $$oauth_set_client_secret('x', 's', NULL)$$),
	(50, $$oauth_set_scope_policy('x', NULL)$$),
	(51, $$oauth_set_scope_policy('x', '', '')$$),
	(52, $$oauth_set_scope_policy('x', '', NULL, NULL, ARRAY['a'])$$),
	(53, $$oauth_set_scope_policy('x', '', NULL, ARRAY['a'], ARRAY['b'])$$),
	(54, $$oauth_set_scope_policy('x', repeat('t', 256))$$),
	(55, $$oauth_discover('')$$),
	(56, $$oauth_set_provider('', '{}')$$),
	(57, $$oauth_set_provider('A b', '{}')$$),
	(58, $$oauth_set_provider('x', '[]')$$),
	(59, $$oauth_drop_provider('')$$),
	(60, $$oauth_claim(NULL)$$),
	(61, $$oauth_create_connector('x', 'google', 'id', 's', 'https://app.example/cb', max_reads_per_actor => -1)$$),
	(62, $$oauth_unfreeze_actor('', 'bot')$$),
	(63, $$oauth_unfreeze_actor('x', NULL)$$),
	(64, $$oauth_unfreeze_actor('x', 'bot', NULL)$$),
	(65, $$oauth_unfreeze_actor('x', 'bot')$$)
	) c (n, call), LATERAL pg_temp.try('SELECT * FROM oauth_vault.' || call) t
	ORDER BY n;

-- RFC 7396, appendix A
SELECT target, patch, oauth_vault.merge_patch(target, patch) AS result FROM (VALUES
	(1, '{"a":"b"}'::jsonb, '{"a":"c"}'::jsonb), (2, '{"a":"b"}', '{"b":"c"}'), (3, '{"a":"b"}', '{"a":null}'),
	(4, '{"a":"b","b":"c"}', '{"a":null}'), (5, '{"a":["b"]}', '{"a":"c"}'), (6, '{"a":"c"}', '{"a":["b"]}'),
	(7, '{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}'), (8, '{"a":[{"b":"c"}]}', '{"a":[1]}'),
	(9, '["a","b"]', '["c","d"]'), (10, '{"a":"b"}', '["c"]'), (11, '{"a":"foo"}', 'null'), (12, '{"a":"foo"}', '"bar"'),
	(13, '{"e":null}', '{"a":1}'), (14, '[1,2]', '{"a":"b","c":null}'), (15, '{}', '{"a":{"bb":{"ccc":null}}}')
	) v (n, target, patch) ORDER BY n;
SELECT oauth_vault.merge_patch(NULL, '{"a": {"b": null, "c": 1}}'), oauth_vault.merge_patch('{"a": 1}', NULL),
	oauth_vault.merge_patch(NULL, NULL) IS NULL AS nothing;
-- Nothing could interrupt a long one
SELECT oauth_vault.merge_patch('{}', (SELECT jsonb_object_agg(n, n) FROM generate_series(1, 257) n));
