/*
 * provider_internal.h
 *	  What the provider_*.c and oauth_*.c files share; nobody else includes this.
 *
 * A loaded provider keeps the checked rule document itself: provider_language.c
 * has made sure that every member has the type, the pointer and the template
 * syntax that its users rely on, so that they read it without checking again.
 */
#ifndef OV_PROVIDER_INTERNAL_H
#define OV_PROVIDER_INTERNAL_H

#include "core/provider.h"

#define OV_RULES_VERSION 1
#define OV_MAX_TOKEN (64 * 1024)
#define OV_MAX_VARIABLE 255

typedef struct Variable
{
	const char *name;
	const OvJson *rule;			/* pattern, source, default */
	const char *value;			/* NULL: has none */
} Variable;

struct OvProvider
{
	const OvJson *rules;
	const OvJson *metadata;		/* NULL if none */
	Variable   *variables;
	int			nvariables;

	/* sections of the rules; NULL where there is none */
	const OvJson *authorization;
	const OvJson *callback;
	const OvJson *token;
	const OvJson *post_exchange;
	const OvJson *post_response;	/* response with post_exchange.response merged in */
	const OvJson *lookup;
	const OvJson *refresh;
	const OvJson *response;
	const OvJson *refresh_response; /* the same with refresh.response merged in */
	const OvJson *revocation;
	const OvJson *api;

	const char *issuer;			/* NULL: unknown */
	bool		issuer_open;	/* a variable of it has no value: nobody can be sent there, or come back */
	const char *issuer_pattern; /* NULL: exact or unknown */
	bool		iss_required;
	bool		pkce;
	const char *redirect_uri;	/* of the grant, where it is kept for refreshes; NULL: not known */

	/* from the metadata, taken literally; NULL where the rules say it */
	const char *authorization_url;
	const char *token_url;
	const char *revocation_url;
};

/* ---- provider_pattern.c ---- */

/* Does all of value match?  OV_E_SYNTAX or OV_E_LIMIT when the pattern is none. */
extern OvCode ov_pattern_match(const char *pattern, const char *value, bool *match, OvError *err);

/* ---- provider_template.c ---- */

/* What a template's placeholders stand for, beside the provider's variables */
typedef struct OvValues
{
	const OvProvider *provider;
	const OvClient *client;
	const char *code;
	const char *redirect_uri;
	const char *code_verifier;
	const char *refresh_token;
	const char *access_token;
	const char *token;
	const char *token_type;
	const OvJson *response;		/* for {/json/pointer} */
} OvValues;

typedef enum TemplateUse
{
	TEMPLATE_URL = 1,			/* variables and {client_id} */
	TEMPLATE_REQUEST = 2,		/* these and what a request carries */
	TEMPLATE_API = 4,			/* variables, {client_id}, {access_token}, {token_type} */
	TEMPLATE_SUBJECT = 8		/* variables and {/json/pointer} */
} TemplateUse;

extern OvCode ov_template_check(const OvJson *variables, const char *text, TemplateUse use, OvError *err);
/* Variables are encoded for where they stand and cannot leave it; a missing one is OV_E_CONFIG. */
extern OvCode ov_template_url(OvArena *arena, const OvValues *values, const char *text,
							  char **url, OvError *err);
/* *out is NULL when a placeholder has no value. */
extern OvCode ov_template_text(OvArena *arena, const OvValues *values, const char *text,
							   char **out, OvError *err);
/* host[:port], or with its placeholders as they stand where they have no value */
extern OvCode ov_template_host(OvArena *arena, const OvProvider *p, const char *text, bool is_url,
							   char **host, OvError *err);
extern OvCode ov_check_endpoint(OvArena *arena, const char *url, OvUrl *parsed, OvError *err);
extern const Variable *ov_variable(const OvProvider *p, const char *name);
extern OvCode ov_variable_check(const OvJson *rule, const char *name, const char *value, OvError *err);
extern bool ov_variable_has_source(const OvJson *rule, const char *source);

/* ---- provider_language.c ---- */

extern OvCode ov_rules_check(const OvJson *rules, OvError *err);

/* ---- provider_load.c ---- */

/* The rule's text, or what it means when it is not given */
extern const char *ov_rule_text(const OvJson *section, const char *key, const char *otherwise);
extern bool ov_rule_flag(const OvJson *section, const char *key, bool otherwise);

#endif							/* OV_PROVIDER_INTERNAL_H */
