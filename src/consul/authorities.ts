/** The system's certificate authorities, as the `consul` program and curl know them: Node.js and Bun have only their own. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readGiven } from '../platform/read-given.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** Where distributions keep all of them in one file; the first that is there counts, as for Go's programs. */
const BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** The most that is read of a file, in bytes. */
const LIMIT = 16_777_216;

/** None: there is no store, and the runtime's own authorities have to do. What can't be read counts as not there. */
export function systemAuthorities(env: Env, bundles: readonly string[] = BUNDLES): readonly Buffer[] {
  const { SSL_CERT_FILE: file = '', SSL_CERT_DIR: folders = '', NODE_EXTRA_CA_CERTS: extra = '' } = env;
  const bundle = firstOf(file === '' ? bundles : [file]);
  const all = [...bundle, ...folders.split(':').filter(Boolean).flatMap(readFolder)];
  // Those are additions to the runtime's own; they must not get lost where the system's take their place.
  return all.length === 0 || extra === '' ? all : [...all, ...firstOf([extra])];
}

function firstOf(files: readonly string[]): Buffer[] {
  for (const file of files) {
    const found = readCertificates(file);
    if (found.length > 0) return found;
  }
  return [];
}

function readFolder(folder: string): Buffer[] {
  try {
    // Most are there twice: by name, and as a link by hash.
    const texts = readdirSync(folder).flatMap((name) => readCertificates(join(folder, name)).map(String));
    return [...new Set(texts)].map((text) => Buffer.from(text));
  } catch {
    return [];
  }
}

function readCertificates(file: string): Buffer[] {
  try {
    if (!statSync(file).isFile()) return [];
    const text = readGiven(file, LIMIT);
    return text.includes('-----BEGIN CERTIFICATE-----') ? [text] : [];
  } catch {
    return [];
  }
}
