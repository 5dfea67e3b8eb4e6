package query

import (
	"strings"

	"github.com/purserhq/purser/internal/fault"
)

const (
	numberLength = 12
	// crockford is Douglas Crockford's base 32. It has no I, L and O, which people mistake for 1 and 0, and no U.
	crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// parseNumber reads an order number as people write it: in either case, with spaces or hyphens anywhere, with I or L for
// 1 and O for 0.
func parseNumber(s string) (string, error) {
	number := strings.NewReplacer("-", "", " ", "", "I", "1", "L", "1", "O", "0").Replace(strings.ToUpper(s))
	if len(number) != numberLength || strings.Trim(number, crockford) != "" {
		return "", fault.InvalidField("order_number", "must be %d letters and digits, such as 7K3M-9QXA-2TFD", numberLength)
	}
	return number, nil
}

// grouped shows a number in groups of four.
func grouped(number string) string {
	if len(number) != numberLength {
		return number
	}
	return number[:4] + "-" + number[4:8] + "-" + number[8:]
}
