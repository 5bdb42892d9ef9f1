"""Metrics accumulated record by record: accuracy, confusion matrix, calibration, and the worst errors."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

BINS = 10  # of confidence
WORST = 60  # mistakes kept
LISTED = 1000  # unreadable pictures kept by name


class Metrics:
    """Counts over records, as `results.Results` yields them; memory does not grow with their number.

    total, read, unreadable_count: numbers of pictures; top1, top5: percentage of those read whose label is the best,
    or among the best five. confusion[label, prediction] counts. For the predictions whose confidence is in a bin,
    `calibration` has their number, their mean confidence, and the fraction that is right.
    """

    def __init__(self, records: Iterable[dict[str, Any]], classes: Sequence[str]) -> None:
        self.classes = list(classes)
        size = len(classes)
        self.total, self.unreadable_count, self.hits1, self.hits5 = 0, 0, 0, 0
        self.unreadable: list[tuple[str, str]] = []  # key and reason, of the first ones
        self.confusion = np.zeros((size, size), np.int64)
        self.hits5_of = np.zeros(size, np.int64)
        self._bins = np.zeros((BINS, 3))
        worst: list[tuple[float, int, dict[str, Any]]] = []
        for record in records:
            self.total += 1
            if "error" in record:
                self.unreadable_count += 1
                if len(self.unreadable) < LISTED:
                    self.unreadable.append((record["key"], record["error"]))
            elif record["label"] is not None:
                self._count(record)
                if not record["top1"]:
                    heapq.heappush(worst, (record["probs"][0], -record["number"], record))
                    if len(worst) > WORST:
                        heapq.heappop(worst)
        self.worst = [record for _, _, record in sorted(worst, key=lambda entry: entry[:2], reverse=True)]

    def _count(self, record: dict[str, Any]) -> None:
        label, best, confidence = record["label"], record["top"][0], record["probs"][0]
        if label >= len(self.classes):
            raise ValueError(f"{record['key']} has label {label}, but the model knows {len(self.classes)} classes")
        self.confusion[label, best] += 1
        self.hits1 += record["top1"]
        self.hits5 += record["top5"]
        self.hits5_of[label] += record["top5"]
        self._bins[min(int(confidence * BINS), BINS - 1)] += 1, confidence, record["top1"]

    @property
    def read(self) -> int:
        """The number of pictures that could be read."""
        return self.total - self.unreadable_count

    @property
    def top1(self) -> float:
        """The top-1 accuracy in percent."""
        return 100 * self.hits1 / self.read if self.read else float("nan")

    @property
    def top5(self) -> float:
        """The top-5 accuracy in percent."""
        return 100 * self.hits5 / self.read if self.read else float("nan")

    @property
    def calibration(self) -> list[tuple[int, float, float]]:
        """The number of predictions in each bin of confidence, their mean confidence, and their accuracy."""
        return [
            (int(n), float(confidence / n) if n else 0.0, float(right / n) if n else 0.0)
            for n, confidence, right in self._bins
        ]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: |confidence - accuracy|, the mean over predictions, bin by bin."""
        if not self.read:
            return float("nan")
        return sum(n * abs(confidence - right) for n, confidence, right in self.calibration) / self.read

    def per_class(self) -> list[tuple[str, int, float, float, float]]:
        """Return for each class with pictures: name, number, top-1, top-5 and precision, these three in percent."""
        rows = []
        predicted = self.confusion.sum(0)
        for label, name in enumerate(self.classes):
            count = int(self.confusion[label].sum())
            if count:
                right = int(self.confusion[label, label])
                precision = 100 * right / int(predicted[label]) if predicted[label] else 0.0
                rows.append((name, count, 100 * right / count, 100 * int(self.hits5_of[label]) / count, precision))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics as JSON-compatible values."""
        return {
            "pictures": self.total, "read": self.read, "right": self.hits1, "right_in_five": self.hits5,
            "top1": self.top1 if self.read else None, "top5": self.top5 if self.read else None,
            "calibration_error": self.calibration_error if self.read else None,
            "calibration": [
                {"pictures": n, "confidence": confidence, "accuracy": right}
                for n, confidence, right in self.calibration
            ],
            "per_class": [
                {"class": name, "pictures": n, "top1": top1, "top5": top5, "precision": precision}
                for name, n, top1, top5, precision in self.per_class()
            ],
            "unreadable": [{"picture": key, "error": error} for key, error in self.unreadable],
        }  # fmt: skip
