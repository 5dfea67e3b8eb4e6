package payment

import "strings"

// GatewayKey is the idempotency key of a call to the gateway. It is made from the request that means the call to be made,
// so every attempt, on every replica and after every crash, carries the same one.
type GatewayKey string

// NewGatewayKey returns the key of the one call that a request on an order's payment causes. Request ids are scoped to
// an order, so the key names both.
func NewGatewayKey(orderID, requestID string) GatewayKey {
	return GatewayKey(orderID + "/" + requestID)
}

// RequestID is the request that recorded the intent, and under which its outcome is recorded.
func (k GatewayKey) RequestID() string {
	_, id, _ := strings.Cut(string(k), "/") // an order id has no "/"
	return id
}
