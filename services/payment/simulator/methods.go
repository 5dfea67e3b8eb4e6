package simulator

import "time"

// timesUnavailable is how often a call is turned away before it is taken.
const timesUnavailable = 3

// behaviour is what happens to an authorization.
type behaviour struct {
	// declineCode is the bank's reason; empty where it approves.
	declineCode string
	// refusals is how many calls are turned away first.
	refusals int
	// loseAnswer takes the first call and answers nothing.
	loseAnswer bool
	// slow takes effect after a while.
	slow  bool
	after time.Duration
}

// behaviourOf reads the payment method. pm_card_* are test tokens of a well-known provider, pm_sim_* are our own.
func behaviourOf(method string) behaviour {
	switch method {
	case "pm_card_visa":
		return behaviour{}
	case "pm_card_chargeDeclined":
		return behaviour{declineCode: "generic_decline"}
	case "pm_card_chargeDeclinedInsufficientFunds":
		return behaviour{declineCode: "insufficient_funds"}
	case "pm_sim_unavailable":
		return behaviour{refusals: timesUnavailable}
	case "pm_sim_timeout":
		return behaviour{loseAnswer: true}
	case "pm_sim_timeout_declined":
		return behaviour{loseAnswer: true, declineCode: "generic_decline"}
	case "pm_sim_slow":
		return behaviour{slow: true}
	}
	return behaviour{declineCode: "invalid_payment_method"}
}
