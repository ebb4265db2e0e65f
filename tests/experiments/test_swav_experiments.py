"""The experiment of SwAV holds the values of the rho-study's paper and released code."""

from support.experiments import RHO_LARS, RHO_STUDY, SLOW_R50, held

PAPER = (
    RHO_STUDY
    | SLOW_R50
    | RHO_LARS
    | {
        "method._target_": "ssl_video.methods.swav.SwAV",
        "method.hidden_features": 2048,
        "method.embedding_dim": 128,
        "method.num_layers": 3,
        "method.batch_norm": "hidden",
        "method.sync_batch_norm": True,
        "method.num_prototypes": 1000,
        "method.temperature": 0.1,
        "method.epsilon": 0.05,
        "method.sinkhorn_iterations": 3,
        "method.num_code_views": 2,
        "method.frozen_prototype_epochs": 1.0,
    }
)


def test_experiment_holds_the_papers_values() -> None:
    assert held("swav_slow_r50_kinetics400", PAPER) == PAPER
