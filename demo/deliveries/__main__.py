"""`python -m demo.deliveries PORT`: run the app. Only errors are in the terminal."""

import logging
import sys

from werkzeug.serving import run_simple

from demo.deliveries import app

logging.getLogger("werkzeug").setLevel(logging.WARNING)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
