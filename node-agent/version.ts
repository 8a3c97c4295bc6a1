/** Of the software; the build replaces it with package.json's, see infra/dev/build.ts. */
declare const UNDERSTUDY_VERSION: string | undefined

export const softwareVersion = typeof UNDERSTUDY_VERSION === 'string' ? UNDERSTUDY_VERSION : 'development'
