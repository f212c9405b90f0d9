"""An app that declares permissions."""

from pat_service.embed import EmbeddedApp

app = EmbeddedApp(permissions=["camera", "geolocation"])
