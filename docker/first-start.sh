#!/bin/sh
# Run by the `setup` service before everything else. Makes the settings and secrets that are missing in /config (the bot's) and
# /frontend, and leaves those that are there alone; what follows from them (the registration, copies, Synapse's part) is made anew.
set -eu
umask 077
: "${SERVER_NAME:?set SERVER_NAME, the part of user ids after the colon}"
: "${ORGANISATION:=$SERVER_NAME}"

if [ ! -e /config/config.yaml ]; then
    mkdir -p /config/secrets
    cat > /config/config.yaml <<YAML
# Made by first-start. The example with every key explained is matrix_pypi_bot/example-config.yaml.
homeserver: {address: "http://synapse:8008", server_name: "$SERVER_NAME"}
appservice:
  host: 0.0.0.0
  port: 29331
  url: http://bot:29331
  as_token_file: secrets/as_token
  hs_token_file: secrets/hs_token
database: {url: "postgres://matrix_pypi@postgres/matrix_pypi"}
organisation: {name: "$ORGANISATION", root_key_file: secrets/root_key, mirror_key_file: secrets/mirror_key}
api:
  listen: unix:/run/matrix-pypi/api.sock
  token_file: secrets/api_token
  operator_token_file: secrets/operator_token
public: {listen: unix:/run/matrix-pypi/public.sock}
YAML
fi
if [ ! -e /frontend/frontend.yaml ]; then
    cat > /frontend/frontend.yaml <<YAML
# Made by first-start. The example with every key explained is index_frontend/example-config.yaml.
listen: {host: 0.0.0.0, port: 8080}
oracle: {url: "unix:/run/matrix-pypi/api.sock", token_file: api_token, public_url: "unix:/run/matrix-pypi/public.sock"}
storage: {folder: /data/files}
workers: 2
YAML
fi
[ -e /config/secrets/mirror_key ] || matrix-pypi keys new-org -c /config/config.yaml
matrix-pypi registration -c /config/config.yaml -o /config/registration.yaml > /dev/null
matrix-pypi check-config -c /config/config.yaml
# The frontend's folder holds nothing else of the bot's: with this token one may ask and report, not decide.
cp /config/secrets/api_token /frontend/api_token
matrix-pypi-index check-config -c /frontend/frontend.yaml

mkdir -p /synapse/conf.d
cp /config/registration.yaml /synapse/conf.d/registration
cat > /synapse/conf.d/matrix-pypi.yaml <<YAML
app_service_config_files: [/data/conf.d/registration]
room_list_publication_rules: [{user_id: "@pypi:$SERVER_NAME", alias: "#pypi*", action: allow}]
YAML
