package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"baton/bench/lab"
)

// stores is a cluster with one job for each target, chosen by the rules of a protocol.
func stores(section string) lab.Cluster {
	return lab.Cluster{Section: section, Jobs: []lab.Job{
		{Name: "store-a", Hosts: []string{"t1"}},
		{Name: "store-b", Hosts: []string{"t2"}},
	}}
}

const redisSection = `protocol: redis
redis:
  rules:
    - { user: ann, job: store-b }
    - { database: "3", job: store-b }
    - { command: "GEO*", job: store-b }
    - { database: "1", job: store-a }
    - { command: "SET", job: store-a }`

const postgresSection = `protocol: postgres
postgres:
  rules:
    - { database: shop, job: store-a }
    - { database: stock, job: store-b }`

var storeScenarios = []Scenario{
	{
		Name:   "redis-cli",
		Doc:    "redis-cli reaches the redis that user, database or first command decides; a strange command gets an error",
		Shape:  Shape{Cluster: stores(redisSection), Server: redis},
		Expect: Expect{Connections: 6, Transferred: 5},
		Run:    runRedis,
	},
	{
		Name: "postgres-psql",
		Doc: "the database decides which PostgreSQL psql talks to, after its request for encryption was declined: queries, " +
			"50 MB in and out by COPY; a strange database is an error",
		Shape:  Shape{Cluster: stores(postgresSection), Server: postgres},
		Expect: Expect{Connections: 5, Transferred: 3, Retransmissions: true},
		Run:    runPostgres,
	},
}

// redis starts a redis without a disk, with a user ann, whose key "host" has the host's name.
func redis(e *Env, h *lab.Host) error {
	p, err := h.Start("redis", "redis-server", "--port", "80", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "",
		"--appendonly", "no", "--dir", h.Dir(), "--user", "ann", "on", ">lovelace", "~*", "+@all")
	if err != nil {
		return err
	}
	return p.Ready(e.Ctx, func() error {
		return e.redisCLI(h, portOf(h), "OK", "SET", "host", h.Name)
	})
}

// runRedis has connections decided by command, database and user; what has been written where is then asked of each redis.
func runRedis(e *Env) error {
	return errors.Join(
		e.redisCLI(e.Client, service, "OK", "SET", "color", "red"),
		e.redisCLI(e.Client, service, "OK", "-n", "1", "SET", "color", "green"),
		e.redisCLI(e.Client, service, "OK", "-n", "3", "SET", "color", "blue"),
		e.redisCLI(e.Client, service, "1", "GEOADD", "towns", "13.4", "52.5", "berlin"),
		e.redisCLI(e.Client, service, "t2", "--user", "ann", "--pass", "lovelace", "--no-auth-warning", "GET", "host"),
		e.redisRefuses("GET", "host"),
		e.redisHas(1, "0", "red"), e.redisHas(1, "1", "green"), e.redisHas(2, "3", "blue"), e.redisHas(2, "0", ""),
	)
}

// redisHas asks the redis of a target itself for the color.
func (e *Env) redisHas(target int, database, want string) error {
	h := e.Target(target)
	return e.redisCLI(h, portOf(h), want, "-n", database, "GET", "color")
}

// portOf is where a target itself listens.
func portOf(h *lab.Host) netip.AddrPort { return netip.AddrPortFrom(h.Data.Addr(), 80) }

// redisCLI runs redis-cli at a host, and checks what it prints.
func (e *Env) redisCLI(at *lab.Host, server netip.AddrPort, want string, args ...string) error {
	return e.prints(at, want, append(redisCLI(server), args...))
}

// prints runs a program at a host, and checks what it prints but for white space around it.
func (e *Env) prints(at *lab.Host, want string, args []string) error {
	out, err := at.Run(e.Ctx, args...)
	if err != nil {
		return fmt.Errorf("%q at %s: %w", args, at.Name, err)
	}
	if got := strings.TrimSpace(string(out)); got != want {
		return fmt.Errorf("%q at %s: %q, want %q", args, at.Name, got, want)
	}
	return nil
}

// fails runs a program at the client that has to fail, and checks that it says why.
func (e *Env) fails(why string, args []string) error {
	out, err := e.Client.Run(e.Ctx, args...)
	if err == nil {
		return fmt.Errorf("%q: succeeded with %q, want a failure with %q", args, out, why)
	}
	if !strings.Contains(string(out)+err.Error(), why) {
		return fmt.Errorf("%q: %q, want %q: %w", args, out, why, err)
	}
	return nil
}

// redisCLI is a redis-cli that ends with an error if the server answers one.
func redisCLI(server netip.AddrPort) []string {
	return []string{"redis-cli", "-e", "-h", server.Addr().String(), "-p", strconv.Itoa(int(server.Port()))}
}

// redisRefuses checks the error that a client gets whose command matches no rule.
func (e *Env) redisRefuses(args ...string) error {
	return e.fails("nobody serves this user", append(redisCLI(service), args...))
}

// postgresScript makes and starts a PostgreSQL with the databases shop and stock, in which the table here has the host's
// name. It keeps its files in memory and does not wait for them to be written; nobody but root could have port 80.
const postgresScript = `set -e; echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
mount -t tmpfs -o mode=755 tmpfs /srv; cd /srv; install -d -o postgres data; bin=$(ls -d /usr/lib/postgresql/*/bin)
as="setpriv --reuid postgres --regid postgres --clear-groups"
$as $bin/initdb --no-sync --auth trust --encoding UTF8 --locale C --pgdata data >/dev/null
echo 'host all all 0.0.0.0/0 trust' >>data/pg_hba.conf
one() { $as $bin/postgres --single -D data $1 >/dev/null; }
for database in shop stock; do
	echo "create database $database;" | one postgres
	echo "create table here as select text '%s' as name;" | one $database
done
exec $as $bin/postgres -D data -c listen_addresses=0.0.0.0 -c port=80 -c unix_socket_directories= -c fsync=off -c huge_pages=off
`

// postgres starts a PostgreSQL.
func postgres(e *Env, h *lab.Host) error {
	p, err := h.Start("postgres", "unshare", "--mount", "--propagation", "private", "sh", "-c",
		fmt.Sprintf(postgresScript, h.Name))
	if err != nil {
		return err
	}
	return p.Ready(e.Ctx, func() error {
		return e.psql(h, portOf(h), h.Name, "shop", "-c", "select name from here")
	})
}

// rows of a hundred octets make a table of 50 MB.
const rows = 500_000

func runPostgres(e *Env) error {
	in, out := e.Client.Path("rows.in"), e.Client.Path("rows.out")
	table := make([]byte, 0, rows*100)
	for i := range rows {
		table = fmt.Appendf(table, "%d\t%s\n", i, strings.Repeat("x", 98-len(strconv.Itoa(i))))
	}
	if err := os.WriteFile(in, table, 0o644); err != nil {
		return err
	}
	err := errors.Join(
		e.psql(e.Client, service, "t1", "shop", "-c", "select name from here"),
		e.psql(e.Client, service, "t2", "stock", "-c", "select name from here"),
		e.psql(e.Client, service, fmt.Sprint("t2\n", rows), "stock", "-c", "select name from here",
			"-c", "create table t (i int, filling text)", "-c", `\copy t from '`+in+`'`, "-c", `\copy t to '`+out+`'`,
			"-c", "select count(*) from t"),
		e.psqlFails("nobody serves this database and user here", "nowhere"),
		e.psqlFails("server does not support SSL", "dbname=shop sslmode=require"),
	)
	if err != nil {
		return err
	}
	back, err := os.ReadFile(out)
	if err == nil && !bytes.Equal(back, table) {
		err = fmt.Errorf("%d octets came back otherwise than the %d that went there", len(back), len(table))
	}
	return err
}

// psql runs psql at a host, and checks what it prints.
func (e *Env) psql(at *lab.Host, server netip.AddrPort, want, database string, args ...string) error {
	return e.prints(at, want, append(psql(server, database), args...))
}

// psqlFails checks why psql does not get to a database.
func (e *Env) psqlFails(why, database string) error {
	return e.fails(why, append(psql(service, database), "-c", "select 1"))
}

func psql(server netip.AddrPort, database string) []string {
	return []string{"psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "-h", server.Addr().String(),
		"-p", strconv.Itoa(int(server.Port())), "-U", "postgres", "-d", database}
}
