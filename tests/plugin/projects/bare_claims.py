"""A claim whose test asks for no study, so that nothing is judged."""

from kv_claims.claims.claim import Region, claim


@claim("without-study", says="It transfers.", cites="a test", transfer=Region(high=0.12))
def test_without_study():
    pass
