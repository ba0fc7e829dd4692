# Plain PGXS: make, make install, make installcheck (PG_CONFIG=... picks a server).
# installcheck needs a running server with oauth_vault preloaded and a vault file
# whose identity source is "role": see README.

EXTENSION  = oauth_vault
EXTVERSION = 1.0
MODULE_big = oauth_vault

SOURCES = $(sort $(wildcard src/*.c src/core/*.c src/vault/*.c src/worker/*.c))
OUR_HEADERS = $(wildcard src/*.h src/core/*.h src/vault/*.h src/worker/*.h)
OBJS = $(SOURCES:.c=.o)

SCHEMA    = $(sort $(wildcard src/schema/*.sql))
PROVIDERS = $(sort $(filter-out providers/schema.json,$(wildcard providers/*.json)))

DATA_built    = $(EXTENSION)--$(EXTVERSION).sql
SCRIPTS_built = oauth-vault-keyring
EXTRA_CLEAN   = src/bin/oauth-vault-keyring.o

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))

# A compiler newer than ours may know new warnings: make WERROR= builds all the same.
WERROR = -Werror
PG_CPPFLAGS = -I$(srcdir)/src -D_GNU_SOURCE
PG_CFLAGS   = -std=gnu11 -Wall -Wextra $(WERROR) -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-declaration-after-statement -Wno-clobbered
# Points at which a test can end a process (src/debug_point.h); never for use.
ifdef DEBUG_POINTS
PG_CPPFLAGS += -DOV_DEBUG_POINTS
endif
# What auditing costs is measured against a build without it; never for use.
ifdef BENCH_NO_AUDIT
PG_CPPFLAGS += -DOV_BENCH_NO_AUDIT
endif
SHLIB_LINK  = -lcurl -lssl -lcrypto

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) src/bin/oauth-vault-keyring.o: $(OUR_HEADERS)

# The install script: the schema in order, then the catalogue of providers.
$(EXTENSION)--$(EXTVERSION).sql: $(SCHEMA) $(PROVIDERS) src/schema/catalogue.pl
	cat $(SCHEMA) > $@.tmp
	$(PERL) src/schema/catalogue.pl $(PROVIDERS) >> $@.tmp
	mv $@.tmp $@

# The tool is core code without a server.
KEYRING_OBJS = src/bin/oauth-vault-keyring.o $(addprefix src/core/,arena.o codec.o json.o jwt.o keysource.o record.o vaultfile.o)
oauth-vault-keyring: $(KEYRING_OBJS)
	$(CC) $(CFLAGS) -o $@ $(KEYRING_OBJS) $(LDFLAGS) -lssl -lcrypto
