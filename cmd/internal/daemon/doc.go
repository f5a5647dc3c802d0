// Package daemon is what the daemons of both kinds of host have in common: commands that read a configuration file
// (run, check, doctor, version), the log, and parts that run side by side. Callers: cmd/baton, cmd/baton-target.
package daemon
