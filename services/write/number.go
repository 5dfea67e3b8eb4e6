package write

import (
	"encoding/base32"

	"github.com/purserhq/purser/internal/secret"
)

const (
	numberLength  = 12
	numberPurpose = "order-number"
)

// crockford is Douglas Crockford's base 32: no I, L, O or U, so that a number survives being read out.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// orderNumber is the number by which people name an order: 60 bits of a keyed hash of its id, so that a number can
// neither be guessed nor tell how many orders there are.
func orderNumber(s *secret.Secret, orderID string) string {
	return crockford.EncodeToString(s.MAC(s.Current(), numberPurpose, []byte(orderID)))[:numberLength]
}

// grouped shows a number in groups of four.
func grouped(number string) string {
	if len(number) != numberLength {
		return number
	}
	return number[:4] + "-" + number[4:8] + "-" + number[8:]
}
