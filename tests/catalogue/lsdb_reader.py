"""What LSDB sees in a HATS catalogue, as JSON. Runs in the Python that tools/setup.sh makes for it."""
import json
import sys
import warnings

import lsdb
import numpy as np
import pyarrow.parquet as pq
from hats.io.validation import is_valid_catalog

warnings.simplefilter("ignore")
path, radius = sys.argv[1], 0.01
catalogue = lsdb.open_catalog(path, columns="all")
everything = catalogue.compute(progress_bar=False).sort_values("object_id")
place = everything.iloc[len(everything) // 2]
cone = [float(place["ra"]), float(place["dec"])]
found = lsdb.open_catalog(path).cone_search(*cone, radius * 3600).compute(progress_bar=False)
fields = {field.name: field.metadata for field in pq.read_schema(f"{path}/dataset/_common_metadata")}
print(json.dumps({
    "valid": bool(is_valid_catalog(path, strict=True)),
    "object_id": [int(one) for one in everything["object_id"]],
    **{name: np.stack([np.asarray(one, float) for one in everything[name]]).tolist() for name in ("image_embedding", "spectrum_embedding")},
    **({"z_phot": [float(one) for one in everything["z_phot"]]} if "z_phot" in everything else {}),
    "cone": cone, "radius_deg": radius, "found": [int(one) for one in found["object_id"]],
    "units": {name: metadata[b"unit"].decode() for name, metadata in fields.items()},
    "descriptions": {name: metadata[b"description"].decode() for name, metadata in fields.items()}}))
