# As the official image: a database and a user of the environment's names in an empty volume, then the server.
set -e
data=/var/lib/postgresql/data
chown postgres "$data"
chmod 0700 "$data"
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" > /run/password
  chown postgres /run/password
  as initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile=/run/password --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
  rm /run/password
  echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
  [ "$POSTGRES_DB" = postgres ] || printf 'create database %s;' "$POSTGRES_DB" | as postgres --single -D "$data" postgres
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \
  postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp,/var/run/postgresql
