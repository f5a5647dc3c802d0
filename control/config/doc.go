// Package config reads the YAML file of a host. Its central types are Router, the file of a routing host, and two
// for target hosts: Target, whose kernel continues connections, and UserTarget, whose `baton` does. They mirror
// configs/baton.example.yaml, target.example.yaml and userspace.example.yaml key by key, with every default filled in, so who holds one needs no default of its own.
//
// Files are read strictly, because a forwarder that guesses takes a service down: an unknown or repeated key, a wrong
// type, a value out of range, a name that nothing defines or addresses that exclude each other are refused, each as a
// Problem with file, line, column and what would be right. All that are wrong by themselves are reported at once, and
// then all that do not go together. What is legal but probably not meant is a warning. YAML's anchors, aliases, merge keys, tags and second documents are refused too: a
// file should read as what it says.
//
// The struct tags are the rules for one value: yaml is the key; default makes it optional and is written as in the
// file; range is "least..most", either side open, in the unit of the file; oneof lists the words. What concerns more
// than one value is in Router.check, Target.check and
// UserTarget.check.
//
// Called by the daemons' run and check commands, before anything starts. Loading reads the file and nothing else;
// CheckFiles looks at the files that it names. Nothing here is safe for concurrent use except reading what was loaded.
package config
