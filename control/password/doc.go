// Package password checks the passwords of clients that log in with a routing host, before their connections go on. Its
// central type is Pool: a Checker, in so many goroutines, that the router's loop does not wait for.
//
// # Checkers
//
// File has hashes. Lines are "USER:HASH", as htpasswd and dovecot's passwd-file have them, whose further fields are not
// read; empty lines, and those that begin with "#", say nothing. A hash is one of bcrypt ("$2y$...", by htpasswd -B) or
// of SHA-256 or SHA-512 ("$5$...", "$6$...", by mkpasswd), which dovecot's {BLF-CRYPT}, {SHA256-CRYPT}, {SHA512-CRYPT} or
// {CRYPT} may precede. The file is read again when it has changed.
//
// HTTP asks a service, as nginx's mail proxy does (ngx_mail_auth_http_module, "Protocol"): a GET with the header fields
//
//	Auth-Method: plain                  Auth-Protocol: pop3, imap or smtp
//	Auth-User: USER                     Auth-Pass: PASSWORD
//	Auth-Login-Attempt: 1               Client-IP: 192.0.2.1
//
// where USER and PASSWORD have "%" and two hexadecimal digits for octets that are no printable ASCII, for spaces and for "%".
// The answer has status 200 and the field Auth-Status, which is OK if the password is right. It is wrong otherwise, unless
// there is an Auth-Error-Code that begins with 4, as SMTP's codes of temporary failures do: then, and if there is another
// status or no answer, nobody knows. Auth-Server and Auth-Port are not read, because the rules say where connections go, and
// neither is Auth-Wait.
//
// # What is secret
//
// Neither logs nor errors have passwords. A user whom a file does not have is checked against the hash of another one, so it
// takes as long to refuse them. Who gets no answer, or nonsense, is refused for now: nothing goes on unchecked.
package password
