"""Why the receiver refuses a delivery, or refuses to start.

    DeliveryRefused(status)
      Unsigned           403   not proven to be Meta's
      TooLarge           413   more bytes than we read
      QueueUnavailable   503   the stream did not take it, so Meta is to send it again
    ConfigurationError         refuse to start; list every problem at once

No message holds a secret, a header or a byte of a body.
"""


class DeliveryRefused(Exception):
    """A delivery that is not taken. `status` is the HTTP status, the message a short fixed phrase."""

    status = 500

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unsigned(DeliveryRefused):
    """The signature is missing, malformed, or of other bytes or another secret."""

    status = 403

    def __init__(self) -> None:
        super().__init__("signature refused")


class TooLarge(DeliveryRefused):
    """The body is longer than the cap."""

    status = 413

    def __init__(self) -> None:
        super().__init__("body too large")


class QueueUnavailable(DeliveryRefused):
    """The stream cannot take the delivery at the moment."""

    status = 503


class ConfigurationError(Exception):
    """The settings are unusable; the message lists every problem, one a line."""
