#!/usr/bin/env bash
# Submit a job of jobs/ to a Spark cluster with Delta Lake.
#
#   deploy/spark-submit.sh [spark-submit options] -- jobs/run.py run.yml [...]
#   deploy/spark-submit.sh --master spark://host:7077 -- jobs/run.py run.yml
#
# The package goes along as a zip (workers do not import from wheels); its dependencies must be on
# the workers, or come in an archive made with venv-pack from an environment without pyspark:
#
#   python3 -m venv packed && packed/bin/pip install -c requirements.lock . venv-pack
#   VIRTUAL_ENV=$PWD/packed packed/bin/venv-pack -o packed.tar.gz
#   GIO_SPARK_ARCHIVE=packed.tar.gz deploy/spark-submit.sh --master yarn -- jobs/run.py ...
#
# Environment:
#   PYTHON              interpreter of the driver, with gio-spark's dependencies (default: python3)
#   SPARK_HOME          the Spark to submit with (default: that of the interpreter's pyspark)
#   GIO_SPARK_ARCHIVE   packed environment for the workers
#   GIO_SPARK_PACKAGES  Maven coordinate of Delta's jar; empty where the cluster has it: then
#                       nothing is downloaded (default: told from the installed versions)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

options=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  options+=("$1")
  shift
done
if [ $# -lt 2 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
shift

SPARK_HOME="${SPARK_HOME:-$("$python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}"
export SPARK_HOME
if [ -z "${GIO_SPARK_PACKAGES+set}" ]; then
  GIO_SPARK_PACKAGES="$("$python" -c 'from gio_spark.engine.local_spark import delta_package; print(delta_package() or "")')"
fi
if [ -n "$GIO_SPARK_PACKAGES" ]; then
  options+=(--packages "$GIO_SPARK_PACKAGES")
fi

export PYSPARK_DRIVER_PYTHON="${PYSPARK_DRIVER_PYTHON:-$python}"
if [ -n "${GIO_SPARK_ARCHIVE:-}" ]; then
  options+=(--archives "$GIO_SPARK_ARCHIVE#environment")
  export PYSPARK_PYTHON=./environment/bin/python
else
  export PYSPARK_PYTHON="${PYSPARK_PYTHON:-$python}"
fi

zip="$("$python" -c 'from gio_spark.engine.library_upload import package_zip; print(package_zip())')"
trap 'rm -rf "$(dirname "$zip")"' EXIT

# One BLAS thread per Python worker: workers already take one core each.
"$SPARK_HOME/bin/spark-submit" \
  --py-files "$zip" \
  --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
  --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
  --conf spark.sql.session.timeZone=UTC \
  --conf spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS \
  --conf spark.sql.execution.arrow.pyspark.enabled=true \
  --conf spark.executorEnv.OMP_NUM_THREADS=1 \
  --conf spark.executorEnv.OPENBLAS_NUM_THREADS=1 \
  "${options[@]}" "$@"
