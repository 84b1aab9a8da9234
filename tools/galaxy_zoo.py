#!/usr/bin/python3
"""Galaxy Zoo thumbnails for pretraining, and what an encoder makes of their morphology.

usage: galaxy_zoo.py list LABELS.csv THUMBNAILS LIST.csv
       galaxy_zoo.py classify LABELS.csv EMBEDDINGS [EMBEDDINGS...] [--pixels IMAGES]

list      writes the list that `astroclip-ingest-images --bands RGB` reads. LABELS.csv has columns asset_id (the thumbnail's
          name, ID.jpg) and derived_label.
classify  share of right classes, 5-fold (stratified, seed 0), of the 10 nearest neighbours by cosine in each embedding store,
          and with --pixels in the 64 principal components of the images; with its standard error. Prints one JSON line each.
"""
import argparse
import csv
import json
import pathlib

import h5py
import numpy as np

FOLDS, NEIGHBOURS, COMPONENTS = 5, 10, 64


def read_labels(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for column in ("asset_id", "derived_label"):
        if not rows or column not in rows[0]:
            raise SystemExit(f"{path}: no column '{column}'")
    return {int(row["asset_id"]): row["derived_label"] for row in rows}


def write_list(labels, thumbnails, output):
    missing = [number for number in labels if not (thumbnails / f"{number}.jpg").is_file()]
    if missing:
        raise SystemExit(f"{thumbnails}: {len(missing)} of {len(labels)} thumbnails are not there, {missing[0]}.jpg first")
    with open(output, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["object_id", "file"])
        writer.writerows([number, (thumbnails / f"{number}.jpg").resolve()] for number in sorted(labels))


def folds_of(classes):
    """Fold of each object: every class is spread evenly over the folds."""
    random = np.random.default_rng(0)
    folds = np.empty(len(classes), int)
    for name in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == name))
        folds[members] = np.arange(len(members)) % FOLDS
    return folds


def neighbours_vote(train, train_classes, test, count):
    order = np.argsort(-(test @ train.T), axis=1, kind="stable")[:, :NEIGHBOURS]
    votes = np.zeros((len(test), count))
    for column in order.T:
        votes[np.arange(len(test)), train_classes[column]] += 1
    return votes.argmax(axis=1)


def standardised(train, test):
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-9
    scaled = [(x - mean) / deviation for x in (train, test)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in scaled]


def principal_components(train, test):
    mean = train.mean(axis=0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    return [(x - mean) @ axes[:COMPONENTS].T for x in (train, test)]


def accuracy(features, classes, reduce=None):
    names, numbers = np.unique(classes, return_inverse=True)
    folds = folds_of(classes)
    right = np.empty(len(classes), bool)
    for fold in range(FOLDS):
        inside, outside = folds == fold, folds != fold
        train, test = features[outside], features[inside]
        if reduce:
            train, test = reduce(train, test)
        train, test = standardised(train, test)
        right[inside] = neighbours_vote(train, numbers[outside], test, len(names)) == numbers[inside]
    return {"objects": len(classes), "classes": len(names), "accuracy": round(float(right.mean()), 4),
            "standard_error": round(float(np.sqrt(right.mean() * (1 - right.mean()) / len(right))), 4)}


def read(store, column, labels):
    with h5py.File(pathlib.Path(store) / "index.h5") as index:
        ids = index["object_id"][:]
        known = np.isin(ids, list(labels))
        features = index[column][:][known]
    if not len(features):
        raise SystemExit(f"{store}: none of its objects is labelled")
    return features.reshape(len(features), -1).astype(np.float64), np.array([labels[i] for i in ids[known]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("list")
    part.add_argument("labels", type=pathlib.Path)
    part.add_argument("thumbnails", type=pathlib.Path)
    part.add_argument("output", type=pathlib.Path)
    part = parts.add_parser("classify")
    part.add_argument("labels", type=pathlib.Path)
    part.add_argument("embeddings", type=pathlib.Path, nargs="+")
    part.add_argument("--pixels", type=pathlib.Path)
    arguments = parser.parse_args()
    labels = read_labels(arguments.labels)
    if arguments.part == "list":
        write_list(labels, arguments.thumbnails, arguments.output)
        return
    for store in arguments.embeddings:
        print(json.dumps({"features": str(store), **accuracy(*read(store, "image_embedding", labels))}))
    if arguments.pixels:
        pixels, classes = read(arguments.pixels, "flux", labels)
        print(json.dumps({"features": "pixels", **accuracy(pixels, classes, principal_components)}))


if __name__ == "__main__":
    main()
