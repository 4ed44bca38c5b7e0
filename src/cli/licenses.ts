declare const RUNLOCK_LICENSES: string;

/** Licences of all bundled code, collected by the build. */
export const licenses = RUNLOCK_LICENSES;
