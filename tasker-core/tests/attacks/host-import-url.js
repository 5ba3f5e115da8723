// ends: error Error
return (await import('data:text/javascript,export default 1')).default;
