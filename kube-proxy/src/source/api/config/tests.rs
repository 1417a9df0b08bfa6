//! Which settings win, and what is said about wrong ones.

use tempfile::TempDir;

use super::*;

/// A self-signed certificate, of which only the PEM form matters here.
const CA: &str = "-----BEGIN CERTIFICATE-----\nAAECAwQFBgc=\n-----END CERTIFICATE-----\n";
/// The same in base64, as `certificate-authority-data` holds it.
const CA_DATA: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBRUNBd1FGQmdjPQotLS0tLUVORCBDRVJUSUZJQ0FURS0tLS0tCg==";

fn kubeconfig(folder: &TempDir, cluster: &str, user: &str) -> PathBuf {
    let path = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn options(kubeconfig: Option<PathBuf>, master: Option<&str>) -> ClientOptions {
    ClientOptions {
        kubeconfig,
        master: master.map(str::to_owned),
        ..ClientOptions::default()
    }
}

#[test]
fn the_kubeconfig_says_where_and_the_master_flag_beats_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = kubeconfig(
        &folder,
        "server: 'https://one:6443', insecure-skip-tls-verify: true",
        "token: t",
    );
    for (kubeconfig, master, expected) in [
        (Some(&path), None, "https://one:6443/"),
        (Some(&path), Some("https://two"), "https://two/"),
        (Some(&path), Some("two:1234"), "https://two:1234/"),
        (Some(&path), Some(""), "https://one:6443/"),
        (None, Some("http://three:8080"), "http://three:8080/"),
        (None, Some("three:8080"), "http://three:8080/"),
    ] {
        let config = load(&options(kubeconfig.cloned(), master)).unwrap();
        assert_eq!(config.kube.cluster_url.to_string(), expected);
        assert_eq!(config.kube.auth_info.token.is_some(), kubeconfig.is_some());
        assert_eq!(config.kube.accept_invalid_certs, kubeconfig.is_some());
    }
}

#[test]
fn without_kubeconfig_and_url_this_must_be_a_pod() {
    let error = load(&options(None, None)).unwrap_err();
    assert!(matches!(error, ClientConfigError::InCluster(_)), "{error:?}");
}

#[test]
fn a_token_file_beats_the_inline_token_and_is_relative_to_the_kubeconfig() {
    let folder = tempfile::tempdir().unwrap();
    let path = kubeconfig(&folder, "server: 'https://one'", "token: inline, tokenFile: tok");
    let config = load(&options(Some(path), None)).unwrap();
    assert_eq!(config.token_file, Some(folder.path().join("tok")));
    assert!(config.kube.auth_info.token.is_none());
    assert!(config.kube.auth_info.token_file.is_none());
}

#[test]
fn the_certificate_authority_comes_inline_or_from_a_file_that_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), CA).unwrap();
    let ca_file = folder.path().join("ca.crt");
    let inline = format!("server: 'one', certificate-authority-data: {CA_DATA}");
    for (cluster, expected_file) in [
        (
            "server: 'one', certificate-authority: ca.crt".to_owned(),
            Some(ca_file),
        ),
        (inline.clone(), None),
        (format!("{inline}, certificate-authority: ca.crt"), None),
    ] {
        let path = kubeconfig(&folder, &cluster, "");
        let config = load(&options(Some(path), None)).unwrap().kube;
        assert_eq!(config.root_cert, Some(vec![vec![0, 1, 2, 3, 4, 5, 6, 7]]));
        assert_eq!(config.root_cert_file, expected_file, "{cluster}");
        // Something is said about TLS, so HTTPS is meant.
        assert_eq!(config.cluster_url.scheme_str(), Some("https"));
    }
}

#[test]
fn proxy_and_server_name_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = "server: 'https://one', proxy-url: 'http://proxy:3128', tls-server-name: other";
    let config = load(&options(Some(kubeconfig(&folder, cluster, "")), None)).unwrap();
    assert_eq!(config.proxy_url.as_deref(), Some("http://proxy:3128"));
    assert_eq!(config.kube.tls_server_name.as_deref(), Some("other"));
}

#[test]
fn wrong_settings_are_named_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = folder.path().join("wrong");
        std::fs::write(&path, text).unwrap();
        path
    };
    for (text, expected) in [
        ("clusters: {", "cannot read kubeconfig"),
        ("", "it has no current-context"),
        ("current-context: a", "\"a\" is not among its contexts"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: b}}]",
            "cluster \"b\" of context",
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: b}}]\nclusters: [{name: b, cluster: {}}]",
            "has no server",
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: b}}]\nclusters: [{name: b, cluster: \
             {server: x, certificate-authority-data: AAAA}}]",
            "the certificate authority is not a PEM certificate",
        ),
    ] {
        let path = write(text);
        let error = load(&options(Some(path.clone()), None)).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    let missing = load(&options(Some(folder.path().join("none")), None)).unwrap_err();
    assert!(
        with_causes(&missing).contains("No such file"),
        "{}",
        with_causes(&missing)
    );
    for url in ["ftp://host", "https://", "http://a b"] {
        let error = load(&options(None, Some(url))).unwrap_err();
        assert!(error.to_string().contains(url), "{error}");
    }
}

#[test]
fn the_accept_header_follows_the_configuration() {
    for (accept, content_type, expected) in [
        ("", "", "application/vnd.kubernetes.protobuf,application/json"),
        (
            "",
            "application/vnd.kubernetes.protobuf",
            "application/vnd.kubernetes.protobuf,application/json",
        ),
        ("", "application/json", "application/json"),
        (
            "application/json",
            "application/vnd.kubernetes.protobuf",
            "application/json",
        ),
    ] {
        let options = ClientOptions {
            accept_content_types: accept.into(),
            content_type: content_type.into(),
            ..ClientOptions::default()
        };
        assert_eq!(options.accept(), expected);
    }
}
