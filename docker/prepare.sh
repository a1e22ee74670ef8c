#!/usr/bin/env bash
# Makes what OpenSearch's security plugin needs before its first start: certificates, three users, roles.
#
# The image's own demo configuration is not used: the keys of its certificates, the administrator's included, are public,
# and users such as `readall` have their names as passwords. Runs in OpenSearch's image, once; see docker-compose.yml.
set -euo pipefail
umask 077

home=${OPENSEARCH_HOME:-/usr/share/opensearch}
config=$home/config/opensearch-security
authority=${AUTHORITY:-/authority}

for name in OPENSEARCH_INITIAL_ADMIN_PASSWORD OPENSEARCH_AUDIT_PASSWORD OPENSEARCH_DASHBOARDS_PASSWORD; do
    # No other characters: one of them stands in a URL.
    if ! [[ ${!name:-} =~ ^[A-Za-z0-9._~-]{32,}$ ]]; then
        echo "$name: at least 32 of A-Z a-z 0-9 . _ ~ - are needed; \`openssl rand -hex 24\` makes such a one" >&2
        exit 1
    fi
done

if [[ -e $authority/ca.pem ]]; then
    echo "prepared already; passwords that were changed since then have to be changed in OpenSearch too"
    exit 0
fi

hash() {
    "$home/plugins/opensearch-security/tools/hash.sh" -env "$1" | grep '^\$2'
}

# `changeit` is what the plugin opens stores with by default. The files' owner and mode protect them.
keytool() {
    local task=$1
    shift
    "$home/jdk/bin/keytool" "$task" -storetype PKCS12 -storepass changeit "$@"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

keytool -genkeypair -keystore "$work/ca.p12" -alias ca -dname "CN=audit-pipeline authority" -validity 3650 \
    -keyalg EC -groupname secp256r1 -ext bc:critical=ca:true,pathlen:0 -ext ku:critical=keyCertSign,cRLSign
keytool -exportcert -keystore "$work/ca.p12" -alias ca -rfc -file "$work/ca.pem"
keytool -genkeypair -keystore "$work/ca.p12" -alias node -signer ca -dname CN=opensearch -validity 3650 \
    -keyalg EC -groupname secp256r1 -ext eku=serverAuth,clientAuth -ext san=dns:opensearch,dns:localhost,ip:127.0.0.1
# The authority's own key is deleted at the end of this script: nobody can sign with it.
keytool -importkeystore -srckeystore "$work/ca.p12" -srcstorepass changeit -srcalias node -destkeystore "$work/node.p12"
keytool -importcert -keystore "$work/trust.p12" -alias ca -file "$work/ca.pem" -noprompt

admin=$(hash OPENSEARCH_INITIAL_ADMIN_PASSWORD)
audit=$(hash OPENSEARCH_AUDIT_PASSWORD)
dashboards=$(hash OPENSEARCH_DASHBOARDS_PASSWORD)

cat > "$work/internal_users.yml" <<END
_meta: {type: internalusers, config_version: 2}
admin: {hash: "$admin", backend_roles: [admin], description: "Whoever runs this"}
audit: {hash: "$audit", description: "The API"}
kibanaserver: {hash: "$dashboards", reserved: true, description: "The server of Dashboards"}
END

# People who are to look at Dashboards: make users with the backend role `auditors`.
cat > "$work/roles_mapping.yml" <<END
_meta: {type: rolesmapping, config_version: 2}
all_access: {backend_roles: [admin]}
kibana_server: {reserved: true, users: [kibanaserver]}
kibana_user: {backend_roles: [auditors]}
audit_dashboards: {backend_roles: [auditors]}
audit_reader: {users: [audit]}
audit_setup: {users: [audit]}
audit_writer: {users: [audit]}
END

cp "${ROLES:-/roles.json}" "$work/roles.yml" # JSON is YAML
cp "$work"/{node.p12,trust.p12,internal_users.yml,roles_mapping.yml,roles.yml} "$config/"
chown -R "${OWNER:-1000:1000}" "$config"
# Last: it says that all the rest is done.
cp "$work/ca.pem" "$authority/new.pem"
chmod 755 "$authority"
chmod 644 "$authority/new.pem"
mv "$authority/new.pem" "$authority/ca.pem"
echo "prepared: certificates, users and roles"
