// Package ordernumber makes and reads the numbers by which people name orders, such as 7K3M-9QXA-2TFD.
//
// A number is 60 bits of a keyed hash of the order's id, so that it can neither be guessed nor tell how many orders there
// are. It is stored without hyphens and shown in groups of four.
package ordernumber

import (
	"encoding/base32"
	"strings"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
)

const (
	length  = 12
	purpose = "order-number"
	// alphabet is Douglas Crockford's. It has no I, L and O, which people mistake for 1 and 0, and no U.
	alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

var encoding = base32.NewEncoding(alphabet)

// Of returns the number of an order.
func Of(s *secret.Secret, orderID string) string {
	return encoding.EncodeToString(s.MAC(s.Current(), purpose, []byte(orderID)))[:length]
}

// Parse reads a number as people write it: in either case, with spaces or hyphens anywhere, with I or L for 1 and O for
// 0. What is none is a fault on the field order_number.
func Parse(s string) (string, error) {
	number := strings.NewReplacer("-", "", " ", "", "I", "1", "L", "1", "O", "0").Replace(strings.ToUpper(s))
	if len(number) != length || strings.Trim(number, alphabet) != "" {
		return "", fault.InvalidField("order_number", "must be %d letters and digits, such as 7K3M-9QXA-2TFD", length)
	}
	return number, nil
}

// Grouped shows a number in groups of four.
func Grouped(number string) string {
	if len(number) != length {
		return number
	}
	return number[:4] + "-" + number[4:8] + "-" + number[8:]
}
