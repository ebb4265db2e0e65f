"""The experiment of BYOL holds the values of the rho-study's paper and released code."""

from support.experiments import RHO_LARS, RHO_STUDY, SLOW_R50, held

PAPER = (
    RHO_STUDY
    | SLOW_R50
    | RHO_LARS
    | {
        "method._target_": "ssl_video.methods.byol.BYOL",
        "method.hidden_features": 4096,
        "method.embedding_dim": 256,
        "method.projector_layers": 2,
        "method.predictor_layers": 2,
        "method.batch_norm": "hidden",
        "method.sync_batch_norm": True,
        "method.momentum": 0.996,
        "method.momentum_schedule": "cosine",
    }
)


def test_experiment_holds_the_papers_values() -> None:
    assert held("byol_slow_r50_kinetics400", PAPER) == PAPER
