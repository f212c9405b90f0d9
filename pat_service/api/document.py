"""The API's own document: OpenAPI 3.1, made from the code by flask-smorest."""

import http

from flask_smorest import Api

from pat_service.api.problem import ProblemAnswer

PROBLEM_TYPE = "application/problem+json"


class DocumentedApi(Api):
    """flask-smorest for parsing and for the document; `http.problems` answers the errors."""

    ERROR_SCHEMA = ProblemAnswer
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass

    def _register_responses(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                answer = {
                    "description": status.phrase,
                    "content": {PROBLEM_TYPE: {"schema": self.ERROR_SCHEMA}},
                }
                self.spec.components.response(status.name, answer, lazy=True)
