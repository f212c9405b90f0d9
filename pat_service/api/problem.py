"""What every failure looks like, for the API's document."""

from marshmallow import Schema, fields


class ProblemAnswer(Schema):
    """A failure (RFC 9457). `code` tells which; `errors` is there with status 400 alone."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String(required=True)
    request_id = fields.String(data_key="requestId", required=True)
    message = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


PROBLEM = ProblemAnswer()
