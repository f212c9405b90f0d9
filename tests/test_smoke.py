from tests.world import Service


def test_ana_mints_and_opens(service: Service) -> None:
    frame = service.frame()
    facts = service.get(frame, "session")
    assert facts.status_code == 200
    assert service.refusal("pat_0") == "token_invalid"
