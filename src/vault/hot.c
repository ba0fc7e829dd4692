/*
 * hot.c
 *	  A person's connection by one index descent, for oauth_fresh_token.
 *
 * What connection.c reads through SPI, with row security and joins, is read
 * here from the index connection_live and its heap row alone, with the latest
 * snapshot: status, generation and tokens are as they are now, in every
 * isolation level, and a revocation counts from its commit.  The tenant and the
 * user id are keys of the descent, compared byte for byte ("C" collation), and
 * part of what the record is sealed with.
 *
 * Remembered between calls is only what hardly ever changes: the ids of
 * connectors by name and of the vault, and in subkeys.c that a person's key has
 * not been destroyed.  Triggers on those tables (invalidate(), 20-functions.sql)
 * send a relation cache invalidation, which every backend takes in at its next
 * call at the latest: whoever has seen the change commit finds it gone here.
 * What was read before an invalidation came is not remembered after it.
 *
 * A connector with rules for agents is not remembered: its calls go the long way.
 *
 * This knows one answer, the row.  Whatever is not plain (no such row, two of
 * them, a status that needs an explanation, a table or index of another shape)
 * is left to the way through SPI, which then says what is wrong.
 */
#include "vault/vault.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define CONNECTORS 64

/* Columns of oauth_vault.connection that are read; the first are the index's, in its order */
typedef enum Column
{
	C_TENANT, C_USER_ID, C_CONNECTOR_ID, C_ACCOUNT, NKEYS,
	C_ID = NKEYS, C_STATUS, C_KEY_ID, C_GENERATION, C_HOSTS, C_EXPIRES, C_ISSUED,
	C_REFRESH, C_SCOPES, C_ACCESS, C_REFRESH_TOKEN, NCOLUMNS
} Column;
static const struct
{
	const char *name;
	Oid			type;
}			expected[NCOLUMNS] = {
	{"tenant", TEXTOID}, {"user_id", TEXTOID}, {"connector_id", UUIDOID}, {"account", TEXTOID},
	{"connection_id", UUIDOID}, {"status", TEXTOID}, {"key_id", INT8OID}, {"token_generation", INT8OID},
	{"hosts_digest", BYTEAOID}, {"expires_at", TIMESTAMPTZOID}, {"issued_at", TIMESTAMPTZOID},
	{"refresh_at", TIMESTAMPTZOID}, {"scopes", TEXTARRAYOID}, {"access_token", BYTEAOID}, {"refresh_token", BYTEAOID}
};

/* The tables by oid; found again after each change of one of them */
static Oid	connection_rel,
			live_index,
			connector_rel,
			home_rel,
			vault_key_rel;
static bool found;
static AttrNumber columns[NCOLUMNS];

static struct
{
	char		name[256];		/* "": free */
	unsigned char id[16];
}			connectors[CONNECTORS];
static int	next_connector;
static bool has_vault_id;
static unsigned char vault_id[16];

static uint64 invalidations;	/* how often anything here was forgotten */
static uint64 looked_at;		/* invalidations when ov_hot_connection last began */

PG_FUNCTION_INFO_V1(ov_invalidate);

/* No catalogue may be looked at in here. */
static void
forget(Datum arg, Oid relid)
{
	bool		all = relid == InvalidOid || !found;

	if (!all && relid != connection_rel && relid != live_index && relid != connector_rel &&
		relid != home_rel && relid != vault_key_rel)
		return;
	invalidations++;
	found = false;
	if (all || relid == connector_rel)
		memset(connectors, 0, sizeof(connectors));
	if (all || relid == home_rel)
		has_vault_id = false;
	if (all || relid == vault_key_rel)
		ov_forget_subkeys();
}

/* Trigger: every backend forgets what it remembers of this table. */
Datum
ov_invalidate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "not called as a trigger");
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}

static bool
find_tables(void)
{
	static bool registered = false;
	Oid			schema;
	uint64		before;

	if (found)
		return true;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		registered = true;
	}
	/* Lookups take invalidations in: once more, then, until none came. */
	for (;;)
	{
		before = invalidations;
		schema = get_namespace_oid("oauth_vault", true);
		if (!OidIsValid(schema))
			return false;
		connection_rel = get_relname_relid("connection", schema);
		live_index = get_relname_relid("connection_live", schema);
		connector_rel = get_relname_relid("connector", schema);
		home_rel = get_relname_relid("home", schema);
		vault_key_rel = get_relname_relid("vault_key", schema);
		if (!OidIsValid(connection_rel) || !OidIsValid(live_index) || !OidIsValid(connector_rel) ||
			!OidIsValid(home_rel) || !OidIsValid(vault_key_rel))
			return false;
		for (int i = 0; i < NCOLUMNS; i++)
			if ((columns[i] = get_attnum(connection_rel, expected[i].name)) == InvalidAttrNumber ||
				get_atttype(connection_rel, columns[i]) != expected[i].type)
				return false;
		if (before == invalidations)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	/* Whatever is remembered was remembered under other oids, or not at all. */
	memset(connectors, 0, sizeof(connectors));
	has_vault_id = false;
	return found = true;
}

static const unsigned char *
connector_id(const char *name)
{
	for (int i = 0; i < CONNECTORS; i++)
		if (connectors[i].name[0] != '\0' && strcmp(connectors[i].name, name) == 0)
			return connectors[i].id;
	return NULL;
}

void
ov_hot_remember(const OvConnection *c)
{
	static const unsigned char unknown[16];

	/* These ask more of a call than a row can answer (agents.c). */
	if (ov_asks_of_agents(c))
		return;
	if (looked_at != invalidations || !found || memcmp(c->vault_id, unknown, sizeof(unknown)) == 0)
		return;
	memcpy(vault_id, c->vault_id, sizeof(vault_id));
	has_vault_id = true;
	if (connector_id(c->connector) != NULL)
		return;
	strlcpy(connectors[next_connector].name, c->connector, sizeof(connectors[0].name));
	memcpy(connectors[next_connector].id, c->connector_id, 16);
	next_connector = (next_connector + 1) % CONNECTORS;
}

/*
 * Is this the table and the index that the descent below is written for?  What
 * else somebody has put under their names is the long way's to judge.
 */
static bool
as_expected(Relation table, Relation index)
{
	if (table == NULL || table->rd_rel->relkind != RELKIND_RELATION ||
		index == NULL || index->rd_rel->relkind != RELKIND_INDEX || index->rd_rel->relam != BTREE_AM_OID ||
		index->rd_index->indrelid != RelationGetRelid(table) ||
		!index->rd_index->indisvalid || index->rd_index->indcheckxmin || index->rd_index->indnkeyatts != NKEYS)
		return false;
	for (int i = 0; i < NKEYS; i++)
		if (index->rd_index->indkey.values[i] != columns[i])
			return false;
	return true;
}

static void
close_relation(Relation relation)
{
	if (relation != NULL)
		relation_close(relation, NoLock);
}

static Datum
value(TupleTableSlot *slot, Column column, bool *isnull)
{
	return slot_getattr(slot, columns[column], isnull);
}

/* Copies what a call needs out of the row; false: the row is not plain. */
static bool
read_row(TupleTableSlot *slot, OvConnection *c)
{
	bool		isnull;
	Datum		d;
	struct varlena *v;
	Datum	   *items;
	bool	   *nulls;

	for (Column i = 0; i <= C_HOSTS; i++)
	{
		(void) value(slot, i, &isnull);
		if (isnull)
			return false;
	}
	c->status = TextDatumGetCString(value(slot, C_STATUS, &isnull));
	if (strcmp(c->status, "active") != 0 && strcmp(c->status, "held") != 0)
		return false;
	d = value(slot, C_ACCESS, &isnull);
	if (isnull)
		return false;
	v = PG_DETOAST_DATUM_PACKED(d);
	c->access_len = VARSIZE_ANY_EXHDR(v);
	c->access = memcpy(palloc(c->access_len), VARDATA_ANY(v), c->access_len);
	v = PG_DETOAST_DATUM_PACKED(value(slot, C_HOSTS, &isnull));
	if (VARSIZE_ANY_EXHDR(v) != sizeof(c->hosts_digest))
		return false;
	memcpy(c->hosts_digest, VARDATA_ANY(v), sizeof(c->hosts_digest));
	memcpy(c->id, DatumGetUUIDP(value(slot, C_ID, &isnull))->data, 16);
	c->account = TextDatumGetCString(value(slot, C_ACCOUNT, &isnull));
	c->key_id = DatumGetInt64(value(slot, C_KEY_ID, &isnull));
	c->generation = DatumGetInt64(value(slot, C_GENERATION, &isnull));
	d = value(slot, C_EXPIRES, &isnull);
	c->expires_at = isnull ? 0 : DatumGetTimestampTz(d);
	d = value(slot, C_ISSUED, &isnull);
	c->issued_at = isnull ? 0 : DatumGetTimestampTz(d);
	d = value(slot, C_REFRESH, &isnull);
	c->refresh_at = isnull ? 0 : DatumGetTimestampTz(d);
	(void) value(slot, C_REFRESH_TOKEN, &isnull);
	c->can_refresh = !isnull;
	d = value(slot, C_SCOPES, &isnull);
	if (isnull)
		return false;
	deconstruct_array(DatumGetArrayTypeP(d), TEXTOID, -1, false, TYPALIGN_INT,
					  &items, &nulls, &c->nscopes);
	c->scopes = palloc(sizeof(char *) * (c->nscopes + 1));
	for (int i = 0; i < c->nscopes; i++)
		c->scopes[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(items[i]);
	return true;
}

bool
ov_hot_connection(const OvPerson *person, const char *connector, const char *account, OvConnection *c)
{
	const unsigned char *id;
	Relation	table,
				index;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key[NKEYS];
	pg_uuid_t	uuid;
	bool		plain;

	AcceptInvalidationMessages();
	if (!find_tables())
		return false;
	looked_at = invalidations;
	if (!has_vault_id || (id = connector_id(connector)) == NULL)
		return false;
	memset(c, 0, sizeof(*c));
	memcpy(c->vault_id, vault_id, 16);
	memcpy(c->connector_id, id, 16);
	memcpy(uuid.data, id, 16);

	table = try_relation_open(connection_rel, AccessShareLock);
	index = try_relation_open(live_index, AccessShareLock);
	/* opening may have taken in an invalidation: then the long way finds out what it was */
	if (looked_at != invalidations || !as_expected(table, index))
	{
		close_relation(index);
		close_relation(table);
		return false;
	}
	ScanKeyEntryInitialize(&key[0], 0, 1, BTEqualStrategyNumber, TEXTOID, C_COLLATION_OID, F_TEXTEQ,
						   ov_text_datum(person->tenant));
	ScanKeyEntryInitialize(&key[1], 0, 2, BTEqualStrategyNumber, TEXTOID, C_COLLATION_OID, F_TEXTEQ,
						   ov_text_datum(person->user_id));
	ScanKeyEntryInitialize(&key[2], 0, 3, BTEqualStrategyNumber, UUIDOID, InvalidOid, F_UUID_EQ,
						   UUIDPGetDatum(&uuid));
	if (account != NULL)
		ScanKeyEntryInitialize(&key[3], 0, 4, BTEqualStrategyNumber, TEXTOID, C_COLLATION_OID, F_TEXTEQ,
							   ov_text_datum(account));
	/* our own changes are seen by a command id later than theirs (sql_call.c) */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(table, NULL);
	scan = ov_index_beginscan(table, index, snapshot, account != NULL ? NKEYS : NKEYS - 1);
	index_rescan(scan, key, account != NULL ? NKEYS : NKEYS - 1, NULL, 0);
	plain = index_getnext_slot(scan, ForwardScanDirection, slot) && read_row(slot, c);
	/* one of several accounts has to be named */
	if (plain && account == NULL && index_getnext_slot(scan, ForwardScanDirection, slot))
		plain = false;
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	close_relation(index);
	close_relation(table);
	c->connector = unconstify(char *, connector);
	return plain;
}
