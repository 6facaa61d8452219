# Functions that make the certificates of a cluster in the current folder. Sourced.

authority() {
    openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=rowlock-cluster \
        -days 365 -out ca.crt 2>/dev/null
}

service_accounts() {
    openssl ecparam -name prime256v1 -genkey -noout -out accounts.key
    openssl ec -in accounts.key -pubout -out accounts.pub 2>/dev/null
}

certificate() { # file name, subject, alternative names
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$1.crt.new" -extfile /dev/stdin 2>/dev/null <<END
keyUsage = digitalSignature
extendedKeyUsage = serverAuth, clientAuth
${3:+subjectAltName = $3}
END
    mv "$1.crt.new" "$1.crt"
}
