package inspect

// maxHost bounds a registered name, octets (RFC 9110 §4.2.1 leaves it to DNS: RFC 1035 §2.3.4).
const maxHost = 255
