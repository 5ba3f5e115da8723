// fetch: exists where the http service is granted.
const publishFetch = () => {};
