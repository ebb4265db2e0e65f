"""The experiment of SimCLR holds the values of the rho-study's paper and released code."""

from support.experiments import RHO_LARS, RHO_STUDY, SLOW_R50, held

PAPER = (
    RHO_STUDY
    | SLOW_R50
    | RHO_LARS
    | {
        "method._target_": "ssl_video.methods.simclr.SimCLR",
        "method.hidden_features": 2048,
        "method.embedding_dim": 128,
        "method.num_layers": 3,
        "method.batch_norm": "hidden",
        "method.sync_batch_norm": True,
        "method.temperature": 0.1,
        "method.pairs": "chain",
    }
)


def test_experiment_holds_the_papers_values() -> None:
    assert held("simclr_slow_r50_kinetics400", PAPER) == PAPER
