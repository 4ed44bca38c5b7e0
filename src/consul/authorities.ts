/** Reads the system's certificate authorities, as `consul` and curl do, because Node.js and Bun only know their own. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readGiven } from '../platform/read-given.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** The files in which distributions keep all authorities. The first that exists is used, as in Go programs. */
const BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** The most to read of a file, in bytes. */
const LIMIT = 16_777_216;

/** The system's authorities; empty: none found, so the runtime uses its own. Unreadable files count as missing. */
export function systemAuthorities(env: Env, bundles: readonly string[] = BUNDLES): readonly Buffer[] {
  const { SSL_CERT_FILE: file = '', SSL_CERT_DIR: folders = '', NODE_EXTRA_CA_CERTS: extra = '' } = env;
  const bundle = firstOf(file === '' ? bundles : [file]);
  const all = [...bundle, ...folders.split(':').filter(Boolean).flatMap(readFolder)];
  // NODE_EXTRA_CA_CERTS adds to the runtime's own authorities. Keep them when the system's replace the runtime's.
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
    // Most certificates are in the folder twice: as a file, and as a link named by hash.
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
