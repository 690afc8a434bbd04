"""Not a claim: the seed's procedure with its defects, replayed, to see what each of them does.

Runs under `pytest claims --protocol published`, and then alone.
"""

from pathlib import Path

import pytest

PROSE = Path(__file__).parent / "tasks/self_observation.yaml"


@pytest.mark.published_protocol
def test_the_published_protocol_with_one_defect_less_at_a_time(study):
    """The lexicon of PROSE is held against the text of the seed's best cell."""
    study.replay_published(PROSE)
