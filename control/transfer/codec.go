package transfer

// MaxData is the most data that a record carries, octets.
const MaxData = 1<<16 - 1
