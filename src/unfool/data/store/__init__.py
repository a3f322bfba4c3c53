"""The decode-once store: a split's images as one memory-mapped file of uint8 pixels, checksummed in shards.

A store is a folder ``NAME-SPLIT-SIZE-HASH`` with

* ``pixels.bin``: uint8 (N, 3, H, W), or ``encoded.bin`` with ``offsets.npy`` (N + 1) above the size limit;
* ``ids.npy`` (N,) and one ``column-K.npy`` (N,) per label column;
* ``manifest.json``: shapes, class names, counts of corrupt and converted images, a checksum for every 64 MiB, its own.

It is built under a lock in a folder beside it and renamed, so it is whole or absent; one that fails its check is
built again. The key holds set, split, size, crop, the source's fingerprint and the layout's version.
"""
