// story-pgx.go: connect, use and revoke from pgx: bound parameters, autocommit
// through a pool (pgx prepares each statement by itself), error objects.
// Prints TAP.  Environment: PG* of the database, CONNECTOR, ASSERTION (of
// PERSON), CA (file), ISSUER (idp.mjs), CONSENT (consent.mjs).
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const freshToken = "SELECT oauth_vault.oauth_fresh_token($1, assertion => $2)"

var (
	ctx       = context.Background()
	connector = os.Getenv("CONNECTOR")
	assertion = os.Getenv("ASSERTION")
	issuer    = os.Getenv("ISSUER")
	person    = os.Getenv("PERSON")
	count     = 0
	failed    = false
)

func ok(condition bool, claim string, found interface{}) {
	count++
	if condition {
		fmt.Printf("ok %d - %s\n", count, claim)
		return
	}
	failed = true
	fmt.Printf("not ok %d - %s\n# found: %v\n", count, claim, found)
}

// What the story cannot go on without.
func must(err error, doing string) {
	if err != nil {
		ok(false, "the story comes to its end", fmt.Sprintf("%s: %v", doing, err))
		fmt.Printf("1..%d\n", count)
		os.Exit(1)
	}
}

func stateOf(err error) *pgconn.PgError {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr
	}
	return &pgconn.PgError{Code: "none"}
}

func userinfo(token string) (int, map[string]interface{}) {
	pem, err := os.ReadFile(os.Getenv("CA"))
	must(err, "read the CA")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	request, err := http.NewRequest("GET", issuer+"/me", nil)
	must(err, "build a request")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	must(err, "ask userinfo")
	defer response.Body.Close()
	var claims map[string]interface{}
	_ = json.NewDecoder(response.Body).Decode(&claims) // a refusal need not have a body
	return response.StatusCode, claims
}

func connect(pool *pgxpool.Pool) {
	var url, name, status string
	must(pool.QueryRow(ctx, "SELECT authorization_url FROM oauth_vault.oauth_begin($1, assertion => $2)",
		connector, assertion).Scan(&url), "begin")
	ok(strings.HasPrefix(url, issuer+"/"), "oauth_begin answers with a URL of the authorization server", url)

	out, err := exec.Command("node", os.Getenv("CONSENT"), url, "--user", person).Output()
	must(err, "consent")
	must(pool.QueryRow(ctx, "SELECT connector, status FROM oauth_vault.oauth_callback($1, assertion => $2)",
		strings.TrimSpace(string(out)), assertion).Scan(&name, &status), "callback")
	ok(name == connector && status == "active", "oauth_callback makes one active connection", name+" "+status)
}

func useToken(pool *pgxpool.Pool) {
	var token string
	// More often than it takes for a plan to become generic.
	for i := 0; i < 8; i++ {
		must(pool.QueryRow(ctx, freshToken, connector, assertion).Scan(&token), "fresh token")
	}
	status, claims := userinfo(token)
	ok(status == 200 && claims["sub"] == person, "a token got in autocommit through the pool is the person's", status)

	rows, err := pool.Query(ctx, `SELECT connector, access_token, error_state
		FROM oauth_vault.oauth_fresh_tokens($1, assertion => $2)`, []string{connector, "no such connector"}, assertion)
	must(err, "fresh tokens")
	defer rows.Close()
	found := map[string][2]*string{}
	for rows.Next() {
		var name string
		var access, state *string
		must(rows.Scan(&name, &access, &state), "read a row")
		found[name] = [2]*string{access, state}
	}
	known, unknown := found[connector], found["no such connector"]
	ok(len(found) == 2 && known[0] != nil && known[1] == nil,
		"oauth_fresh_tokens has a token where there is one", len(found))
	ok(unknown[0] == nil && unknown[1] != nil && strings.HasPrefix(*unknown[1], "OV0"),
		"and an error state where there is none", unknown[1])
}

func readErrors(pool *pgxpool.Pool) {
	var token string
	e := stateOf(pool.QueryRow(ctx, freshToken, "no such connector", assertion).Scan(&token))
	ok(e.Code == "OV012" && json.Valid([]byte(e.Detail)) && e.Hint != "",
		"an unknown connector has an SQLSTATE, a detail in JSON and a hint", e)
	e = stateOf(pool.QueryRow(ctx, freshToken, connector, "not.an.assertion").Scan(&token))
	ok(e.Code == "OV002", "a bad assertion has another", e)
	e = stateOf(pool.QueryRow(ctx, "SELECT oauth_vault.oauth_fresh_token($1)", connector).Scan(&token))
	ok(e.Code == "OV001", "without identity there is OV001", e)
}

func useTransaction(pool *pgxpool.Pool) {
	var token string
	must(pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT oauth_vault.oauth_identify($1)", assertion); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT oauth_vault.oauth_fresh_token($1)", connector).Scan(&token)
	}), "a transaction")
	status, _ := userinfo(token)
	ok(status == 200, "oauth_identify binds the person for the transaction", status)
}

func revoke(pool *pgxpool.Pool) {
	var state, token string
	must(pool.QueryRow(ctx, "SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)",
		connector, assertion).Scan(&state), "revoke")
	ok(regexp.MustCompile("^revok(ing|ed)$").MatchString(state), "oauth_revoke answers at once", state)
	e := stateOf(pool.QueryRow(ctx, freshToken, connector, assertion).Scan(&token))
	ok(e.Code == "OV010" || e.Code == "OV012", "and there is no token any more", e)
}

func main() {
	pool, err := pgxpool.Connect(ctx, "pool_max_conns=3")
	must(err, "connect to the database")
	defer pool.Close()
	for _, chapter := range []func(*pgxpool.Pool){connect, useToken, readErrors, useTransaction, revoke} {
		chapter(pool)
	}
	fmt.Printf("1..%d\n", count)
	if failed {
		pool.Close()
		os.Exit(1)
	}
}
