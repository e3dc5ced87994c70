"""Ensembles of trees: made as the options say, fitted with folds, and predicted out of sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_reconstruction import ForestConfig
from astri_gpu.errors import UsageError
from astri_gpu.progress import Progress
from astri_gpu.reconstruction.flatten import flatten
from astri_gpu.reconstruction.models import TaskModel

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = ["Grower", "Grown", "auc", "feature_share", "make_estimator"]


@dataclass(frozen=True)
class Grown:
    """A forest, those of its folds, and what the latter say about rows that they have not seen."""

    model: TaskModel
    folds: tuple[TaskModel, ...]
    mean: NDArray[np.float64]  # (row, output), out of sample
    spread: NDArray[np.float64]  # (row, output), of the trees

    def calibrated(self, calibration: Any) -> "Grown":
        """Return the same forests with a calibration of their spread."""
        return replace(
            self,
            model=replace(self.model, calibration=calibration),
            folds=tuple(replace(model, calibration=calibration) for model in self.folds),
        )


def make_estimator(
    config: ForestConfig, *, classifier: bool, n_features: int, n_outputs: int, threads: int
) -> Any:
    """Return an ensemble of scikit-learn that is not fitted yet.

    Boosted trees have one output. Tasks with several get a random forest with the defaults of
    `ForestConfig` instead.

    Raises
    ------
    UsageError
        When `forest.max_features` cannot be read.
    """
    from sklearn import ensemble

    if config.method == "gradient_boosting" and n_outputs > 1:
        config = ForestConfig(random_state=config.random_state)
    share = feature_share(config.max_features, n_features)
    if config.method == "gradient_boosting":
        kind = (
            ensemble.HistGradientBoostingClassifier
            if classifier
            else ensemble.HistGradientBoostingRegressor
        )
        return kind(
            max_iter=config.n_trees,
            max_depth=config.max_depth,
            max_leaf_nodes=None,
            min_samples_leaf=config.min_samples_leaf,
            max_features=share,
            learning_rate=config.learning_rate,
            early_stopping=False,
            random_state=config.random_state,
        )
    name = "RandomForest" if config.method == "random_forest" else "ExtraTrees"
    kind = getattr(ensemble, name + ("Classifier" if classifier else "Regressor"))
    criterion = {"criterion": "entropy"} if classifier and name == "RandomForest" else {}
    return kind(
        n_estimators=config.n_trees,
        max_depth=config.max_depth,
        min_samples_split=config.min_samples_split,
        min_samples_leaf=config.min_samples_leaf,
        max_features=share,
        random_state=config.random_state,
        n_jobs=threads,
        **criterion,
    )


def feature_share(text: str, n_features: int) -> float:
    """Return `forest.max_features` as a share of the features.

    Raises
    ------
    UsageError
        When it cannot be read.
    """
    named = {"sqrt": np.sqrt(n_features), "log2": np.log2(n_features), "all": n_features}
    if text in named:
        # Half of one above: scikit-learn rounds the product of share and number down.
        return float(min(1.0, (max(1, int(named[text])) + 0.5) / n_features))
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise UsageError(
            f"forest.max_features is '{text}': it must be sqrt, log2, all, or a share above 0 and "
            "at most 1"
        )
    return share


def auc(is_signal: NDArray[Any], score: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Return the area under the ROC curve, NaN when there is one class only."""
    from sklearn.metrics import roc_auc_score

    if not len(is_signal) or np.all(is_signal == is_signal[0]):
        return float("nan")
    return float(roc_auc_score(is_signal, score, sample_weight=weight))


class Grower:
    """Fits the forests of a run.

    Parameters
    ----------
    config
        Kind and size of the forests.
    n_folds
        Parts for predictions out of sample.
    n_importance
        Rows for permutation importances, 0 for none.
    backend
        What predicts; its threads grow the trees.
    shown
        Counts the forests.
    """

    def __init__(
        self,
        config: ForestConfig,
        n_folds: int,
        n_importance: int,
        backend: "Backend",
        shown: Progress,
    ) -> None:
        self._config, self.n_folds, self._n_importance = config, n_folds, n_importance
        self._backend, self._shown = backend, shown
        self.n_grown = 0

    def grow(
        self,
        task: str,
        features: Sequence[str],
        rows: NDArray[np.float32],
        target: NDArray[Any],
        weight: NDArray[np.floating],
        fold: NDArray[np.integer],
        *,
        classifier: bool = False,
        trained_on: NDArray[np.bool_] | None = None,
        shift: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    ) -> Grown:
        """Fit one forest without each fold, and one to everything.

        Parameters
        ----------
        task, features
            For the `TaskModel`.
        rows
            (row, feature), finite.
        target
            (row,) or (row, output); for classifiers True or False.
        weight
            (row,)
        fold
            (row,), 0 to `n_folds` - 1; every fold leaves rows of both classes to the others.
        classifier
            Whether classes are predicted.
        trained_on
            (row,), rows that are fitted; the others are only predicted. None = all.
        shift
            Function from predictions out of sample (row, output) to numbers (output,) that are
            added to them, and to the targets of the last fit.
        """
        target = np.asarray(target)
        fitted = np.ones(len(rows), dtype=bool) if trained_on is None else trained_on
        n_outputs = 1 if target.ndim == 1 else target.shape[1]
        mean, spread = np.full((2, len(rows), n_outputs), np.nan)
        models = []
        importances: dict[str, float] = {}
        for k in range(self.n_folds):
            inside = fold == k
            estimator = self._fit(task, rows, target, weight, fitted & ~inside, classifier)
            models.append(TaskModel(task, tuple(features), estimator))
            forest = self._backend.forest(flatten(estimator))
            found = forest(rows[inside])
            mean[inside], spread[inside] = found.mean, found.spread
            if k == 0 and self._n_importance:
                chosen = np.flatnonzero(inside & fitted)
                if len(chosen) > self._n_importance:
                    chosen = self._rng().permutation(chosen)[: self._n_importance]
                score = _auc_score if classifier else _r2_score
                importances = self._importances(
                    features, rows[chosen], target[chosen], weight[chosen], forest, score
                )
        if shift is not None:
            by = shift(mean)
            mean, target = mean + by, target + by
        estimator = self._fit(task, rows, target, weight, fitted, classifier)
        model = TaskModel(task, tuple(features), estimator, importances=importances)
        return Grown(model, tuple(models), mean, spread)

    def _fit(
        self,
        task: str,
        rows: NDArray[np.float32],
        target: NDArray[Any],
        weight: NDArray[np.floating],
        used: NDArray[np.bool_],
        classifier: bool,
    ) -> Any:
        from threadpoolctl import threadpool_limits

        self._shown.note(task)
        estimator = make_estimator(
            self._config,
            classifier=classifier,
            n_features=rows.shape[1],
            n_outputs=1 if target.ndim == 1 else target.shape[1],
            threads=self._backend.threads,
        )
        chosen = np.flatnonzero(used)
        wanted = target[chosen].astype(np.int8 if classifier else np.float64)
        with threadpool_limits(self._backend.threads):  # n_jobs is not for boosted trees
            estimator.fit(rows[chosen], wanted, sample_weight=_uneven(weight[chosen]))
        self.n_grown += 1
        self._shown.advance()
        return estimator

    def predict(self, model: TaskModel, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the predictions (row, output) of a forest."""
        found: NDArray[np.float64] = self._backend.forest(flatten(model.estimator))(rows).mean
        return found

    def _importances(
        self,
        features: Sequence[str],
        rows: NDArray[np.float32],
        target: NDArray[Any],
        weight: NDArray[np.floating],
        forest: Callable[[NDArray[np.float32]], Any],
        score: Callable[..., float],
    ) -> dict[str, float]:
        """Return by how much the score falls when the values of one feature are mixed up."""
        if len(rows) < 2:
            return {}
        rng = self._rng()
        best = score(target, forest(rows).mean, weight)
        lost = {}
        for k, text in enumerate(features):
            mixed = rows.copy()
            mixed[:, k] = rng.permutation(rows[:, k])
            lost[text] = best - score(target, forest(mixed).mean, weight)
        return lost

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self._config.random_state)


def _uneven(weight: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Return weights as scikit-learn takes them, None where all are equal: boosting is quicker."""
    return None if np.all(weight == weight[0]) else weight.astype(np.float64)


def _auc_score(target: NDArray[Any], mean: NDArray[Any], weight: NDArray[Any]) -> float:
    return auc(target, mean[:, 0], weight)


def _r2_score(target: NDArray[Any], mean: NDArray[Any], weight: NDArray[Any]) -> float:
    from sklearn.metrics import r2_score

    return float(r2_score(target, mean[:, 0] if target.ndim == 1 else mean, sample_weight=weight))
