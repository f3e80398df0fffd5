package wire

// Plain and Check let tests compare the scanner with the library.
var Plain = plain

// Check returns the code of what is wrong with data, 0 for nothing.
func Check(data []byte) int {
	if f := check(data); f != nil {
		return int(f.code)
	}
	return 0
}
